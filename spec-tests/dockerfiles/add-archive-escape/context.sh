python3 - <<'P'
import tarfile,io
w=tarfile.open('dotdot.tar','w'); i=tarfile.TarInfo('../../b'); i.size=1; w.addfile(i,io.BytesIO(b'x')); w.close()
P
