python3 - <<'P'
import tarfile,io
w=tarfile.open('t.tar','w')
def f(n,c=b'x',m=0o644):
    i=tarfile.TarInfo(n); i.size=1;i.mode=m; w.addfile(i,io.BytesIO(c))
def d(n,m=0o711):
    i=tarfile.TarInfo(n); i.type=tarfile.DIRTYPE; i.mode=m; w.addfile(i)
def l(n,t,ty=tarfile.SYMTYPE):
    i=tarfile.TarInfo(n); i.type=ty; i.linkname=t; w.addfile(i)
f('a'); d('a'); f('a/x'); d('b'); f('b/y'); f('b'); d('c'); f('c/z'); l('c','b'); f('deep/er/f'); d('deep',0o700); l('h','deep/er/f',tarfile.LNKTYPE); f('deep/er/f',b'2'); d('s'); l('sl','s'); d('sl'); f('sl/q')
w.close()
P
