mkdir -p base/dd/dir; echo x>base/dd/dir/old; echo f >base/dd/f;
python3 - <<'P'
import tarfile,io
w=tarfile.open('t.tar','w')
def l(n,t,ty=tarfile.SYMTYPE):
    i=tarfile.TarInfo(n); i.type=ty; i.linkname=t; w.addfile(i)
l('dir','elsewhere'); l('f','dir')
w.close()
P
