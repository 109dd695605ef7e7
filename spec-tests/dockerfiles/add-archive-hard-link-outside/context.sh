mkdir base; echo x>base/x
python3 - <<'P'
import tarfile,io
w=tarfile.open('l.tar','w'); i=tarfile.TarInfo('l'); i.type=tarfile.LNKTYPE; i.linkname='x'; w.addfile(i); w.close()
P
