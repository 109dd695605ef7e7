python3 - <<'P'
import tarfile,io
w=tarfile.open('t.tar','w',format=tarfile.PAX_FORMAT); i=tarfile.TarInfo('cap'); i.size=1; i.pax_headers={'SCHILY.xattr.security.capability':'\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00','SCHILY.xattr.user.foo':'bar'}; w.addfile(i,io.BytesIO(b'x')); w.close()
P
echo cap >cap
setcap cap_net_bind_service+ep cap
