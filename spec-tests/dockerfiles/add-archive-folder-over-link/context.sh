mkdir -p base/other base/dd/real; ln -s real base/dd/l; ln -s /other base/dd/abs; ln -s none base/dd/dang;
python3 - <<'P'
import tarfile,io
w=tarfile.open('t.tar','w')
def f(n):
    i=tarfile.TarInfo(n); i.size=1; w.addfile(i,io.BytesIO(b'x'))
def d(n):
    i=tarfile.TarInfo(n); i.type=tarfile.DIRTYPE; i.mode=0o711; w.addfile(i)
d('l'); f('l/b'); d('abs'); f('abs/c'); d('dang'); f('dang/q')
w.close()
P
