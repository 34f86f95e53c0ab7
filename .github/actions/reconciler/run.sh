#!/usr/bin/env bash
# One `reconciler ci` command from the action's inputs, which come through the environment and are only ever data.
set -euo pipefail

case "$COMMAND" in
    validate | plan | build | apply | drift) ;;
    *)
        echo "::error::command is validate, plan, build, apply or drift" >&2
        exit 1
        ;;
esac

arguments=("$COMMAND")
if [ "$COMMAND" != validate ]; then
    arguments+=("--author=$AUTHOR")
    if [ -n "$PLATFORM" ]; then arguments+=("--platform=$PLATFORM"); fi
fi
case "$COMMAND" in
    plan | build) arguments+=("--out=$RUNNER_TEMP/plan.json") ;;
esac
case "$COMMAND" in
    build | apply) if [ -n "$TIMEOUT" ]; then arguments+=("--timeout=$TIMEOUT"); fi ;;
esac

exec "$RUNNER_TEMP/reconciler/bin/python" -I -m reconciler ci "${arguments[@]}" -- "$DIR"
