mkdir -p base/other base/dd/other base/dd/sub
python3 - <<'P'
import io, tarfile
w = tarfile.open("l.tar", "w")
def f(n):
    i = tarfile.TarInfo(n); i.size = 1; w.addfile(i, io.BytesIO(b"x"))
def l(n, t):
    i = tarfile.TarInfo(n); i.type = tarfile.SYMTYPE; i.linkname = t; w.addfile(i)
l("l", "/other"); f("l/b"); l("r", "sub"); f("r/c"); l("up", "../../other"); f("up/d")
w.close()
P
