python3 - <<'P'
import tarfile,io
w=tarfile.open('t.tar','w')
def f(n,c=b'x',m=0o644):
    i=tarfile.TarInfo(n); i.size=1;i.mode=m;i.uid=9;i.gid=9; w.addfile(i,io.BytesIO(c))
f('deep/er/f')
w.close()
P
