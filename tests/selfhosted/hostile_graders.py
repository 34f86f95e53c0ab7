"""
Fifty graders that mean harm, each the body of `grade(sample, item)`.

Every one of them ends, when its attack *succeeds*, in `return 1.0`; so a refusal means that the attack failed
(or that the grader did not get as far as answering), and a score means that the sandbox leaks.
`ALONE` are whole sources, for those that attack before or beside `grade`.
"""

from textwrap import dedent, indent

_BODIES = {
    # the network
    "opens a TCP socket": """
        import socket
        socket.create_connection(('127.0.0.1', item['port']), 2)
        return 1.0
    """,
    "opens a UDP socket": "import socket; socket.socket(type=socket.SOCK_DGRAM); return 1.0",
    "opens a Unix socket": "import socket; socket.socket(socket.AF_UNIX); return 1.0",
    "makes a pair of sockets": "import socket; socket.socketpair(); return 1.0",
    "asks a URL": """
        import urllib.request
        urllib.request.urlopen('http://127.0.0.1:%d/' % item['port'], timeout=2)
        return 1.0
    """,
    # the file system
    "reads /etc/passwd": "open('/etc/passwd').read(); return 1.0",
    "reads a file of ours": "open(item['secret_file']).read(); return 1.0",
    "lists a home": "import os; os.listdir(os.path.expanduser('~root')); os.listdir('/home'); return 1.0",
    "lists /tmp": "import os; os.listdir('/tmp'); return 1.0",
    "writes to /tmp": "open('/tmp/left', 'w').write('x'); return 1.0",
    "writes to the root": "open('/left', 'w').write('x'); return 1.0",
    "writes a temporary file": "import tempfile; tempfile.TemporaryFile().write(b'x'); return 1.0",
    "rewrites the worker": "open('/inmate.py', 'r+').write('x'); return 1.0",
    "rewrites a library": "import json; open(json.__file__, 'a').write('x'); return 1.0",
    "makes a folder in shared memory": "import os; os.mkdir('/dev/shm/x'); return 1.0",
    "makes a file in memory": "import os; os.memfd_create('x'); return 1.0",
    "climbs out of its root": "import os; os.chroot('.'); return 1.0",
    "mounts /proc": """
        import ctypes
        if ctypes.CDLL(None).mount(b'proc', b'/proc', b'proc', 0, None) == 0: return 1.0
        raise OSError
    """,
    # /proc and other processes
    "lists processes": "import os; os.listdir('/proc'); return 1.0",
    "reads its parent's memory": "open('/proc/1/mem', 'rb').read(1); return 1.0",
    "reads its own environment file": "open('/proc/self/environ').read(); return 1.0",
    "traces its parent": """
        import ctypes, os
        if ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0: return 1.0
        raise OSError
    """,
    "reads a process's memory by system call": """
        import ctypes, os
        libc, here = ctypes.CDLL(None), ctypes.create_string_buffer(8)
        class Span(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]
        span = Span(ctypes.addressof(here), 8)
        span = ctypes.byref(span)
        if libc.process_vm_readv(os.getppid(), span, 1, span, 1, 0) >= 0: return 1.0
        raise OSError
    """,
    "reads a secret of the environment": "import os; os.environ['RECONCILER_CANARY']; return 1.0",
    # processes and signals
    "forks": "import os; os.fork(); return 1.0",
    "is a fork bomb": """
        import os
        for _ in range(100_000):
            try: os.fork()
            except OSError: continue
            return 1.0
        raise OSError
    """,
    "runs a shell": "import os; assert os.system('true') == 0; return 1.0",
    "runs a program": "import subprocess, sys; subprocess.run([sys.executable, '-c', '']); return 1.0",
    "becomes a program": "import os, sys; os.execv(sys.executable, ['python', '-c', 'print(1.0)'])",
    "starts a thread that stays": """
        import threading, time
        threading.Thread(target=time.sleep, args=(3600,)).start()
        return 1.0
    """,
    "starts a process of multiprocessing": """
        import multiprocessing
        multiprocessing.Process(target=print).start()
        return 1.0
    """,
    "kills its parent": "import os; os.kill(os.getppid(), 9); return 1.0",
    "kills process 1": "import os; os.kill(1, 9); return 1.0",
    "kills everything": "import os; os.kill(-1, 9); return 1.0",
    "kills its group": "import os; os.killpg(0, 9); return 1.0",
    "stops its parent": "import os, signal; os.kill(os.getppid(), signal.SIGSTOP); return 1.0",
    "has the kernel signal its parent": """
        import fcntl, os
        fcntl.fcntl(0, 8, os.getppid())
        return 1.0
    """,
    "ignores the end and goes on": """
        import signal
        for number in range(1, 32):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True: pass
    """,
    "slows its parent down": "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19); return 1.0",
    # resources
    "loops for ever": "while True: pass",
    "sleeps for ever": "import time; time.sleep(1e6); return 1.0",
    "takes all memory": "blocks = []\nwhile True: blocks.append(bytearray(1 << 24))",
    "takes it at once": "return float(len(bytearray(1 << 40)) > 0)",
    "recurses without end": "import sys; sys.setrecursionlimit(10**9)\ndef f(): return f()\nreturn f()",
    "prints a gigabyte and fails": "for _ in range(1_000): print('x' * 1_000_000)\nraise ValueError",
    "opens files without end": "return float(len([open('/dev/null') for _ in range(10_000)]) > 0)",
    "lifts its own limits": """
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return 1.0
    """,
    "matches a catastrophic expression": "import re; return float(bool(re.match('(a+)+$', 'a' * 60 + 'b')))",
    # forged answers
    "prints a score and fails": """
        import sys
        for score in ('1.0', '{"score": 1.0}', 'S1.0'): print(score); sys.stdout.flush()
        raise ValueError
    """,
    "writes a score to every descriptor": """
        import os
        for fd in range(64):
            for score in (b'S1.0', b'1.0\\n', b'\\0\\0\\0\\x0e{"score": 1.0}'):
                try: os.write(fd, score)
                except OSError: pass
        os._exit(0)
    """,
    "announces a score and guesses the word": """
        import os
        for fd in range(3, 64):
            try: os.write(fd, b'd'); os.write(fd, b'0' * 32 + b'1.0')
            except OSError: pass
        os._exit(0)
    """,
    "leaves without an answer": "import os; os._exit(0)",
    "leaves by sys.exit": "import sys; sys.exit(0)",
    "crashes": "import ctypes; ctypes.string_at(0); return 1.0",
    "aborts": "import os; os.abort()",
    "closes every descriptor": "import os; os.closerange(0, 1024); raise ValueError",
    "writes a score at exit": """
        import atexit, os
        atexit.register(lambda: [os.write(fd, b'S1.0') for fd in range(3, 9)])
        raise SystemExit
    """,
    # results that are not numbers
    "returns NaN": "return float('nan')",
    "returns infinity": "return float('inf')",
    "returns an integer beyond floats": "return 10 ** 400",
    "returns a string": "return '1.0'",
    "returns a subclass of str": "return type('Number', (str,), {'__float__': lambda self: 1.0})('1.0')",
    "returns nothing": "return None",
    "returns a list": "return [1.0]",
    "returns something that pickles badly": """
        class Trap:
            def __reduce__(self): return (eval, ('1.0',))
        return Trap()
    """,
    "returns what fails when read": """
        class Trap:
            def __float__(self): raise KeyboardInterrupt
        return Trap()
    """,
    "raises what fails when told": """
        class Trap(BaseException):
            def __str__(self): raise SystemExit(0)
        raise Trap
    """,
    "raises a gigabyte": "raise ValueError('x' * (1 << 30))",
    # the machinery
    "replaces json and fails": "import json; json.dumps = json.loads = lambda *a, **k: 1.0; raise ValueError",
    "replaces os.write and fails": "import os; os.write = os._exit = lambda *a: 1; raise ValueError",
    "replaces float and returns a string": "import builtins; builtins.float = lambda x: 1.0; return 'x'",
    "traces what comes after it": """
        import sys
        def trace(frame, event, argument):
            frame.f_trace_lines = True
            raise SystemExit(0)
        sys.settrace(trace)
        return 1.0
    """,
    "asks the kernel directly": """
        import ctypes
        if ctypes.CDLL(None).syscall(41, 2, 1, 0) >= 0: return 1.0  # socket, on x86-64
        raise OSError
    """,
    "makes a namespace": """
        import ctypes
        if ctypes.CDLL(None).unshare(0x10000000) == 0: return 1.0
        raise OSError
    """,
    "undoes the filter": """
        import ctypes
        if ctypes.CDLL(None).prctl(22, 0, 0, 0, 0) == 0: return 1.0
        raise OSError
    """,
}


def _source(body: str) -> str:
    return "def grade(sample, item):\n" + indent(dedent(body).strip(), "    ")


ALONE = {
    "loops before it is asked": "while True: pass",
    "leaves before it is asked": "import os; os._exit(0)",
    "is not Python": "def grade(sample, item) return 1.0",
    "is nested too deep": "def grade(sample, item): return " + "(" * 5_000 + "1" + ")" * 5_000,
    "has no grade": "def judge(sample, item): return 1.0  # not grade",
    "has a grade that is not a function": "grade = 1.0",
    "has a null byte": "def grade(sample, item): return 1.0\0",
    "imports what is not there": "import no_such_module\ndef grade(sample, item): return 1.0",
}

HOSTILE = {name: _source(body) for name, body in _BODIES.items()} | ALONE
