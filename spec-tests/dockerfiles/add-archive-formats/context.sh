python3 - <<'P'
import tarfile,io
def t(name,fmt,entries):
    w=tarfile.open(name,'w',format=fmt)
    for e in entries:
        i=tarfile.TarInfo(e[0]); i.mtime=1000000000
        for k,v in (e[2] if len(e)>2 else {}).items(): setattr(i,k,v)
        d=e[1].encode() if e[1] is not None else b''
        i.size=len(d); w.addfile(i,io.BytesIO(d))
    w.close()
t('v7.tar',tarfile.USTAR_FORMAT,[('a','x')])
b=bytearray(open('v7.tar','rb').read()); b[257:265]=bytes(8); b[148:156]=b' '*8; s=sum(b[:512]); b[148:156]=b'%06o\0 '%s; open('v7.tar','wb').write(b)
t('gnu.tar',tarfile.GNU_FORMAT,[('a','x'),('n'*150+'/f','y')])
t('pax.tar',tarfile.PAX_FORMAT,[('a','x',{'uid':3000000,'mtime':1.5}),('ü/f','y')])
t('dotdot.tar',tarfile.PAX_FORMAT,[('a/../b','x'),('./c/./d','y')])
t('abs.tar',tarfile.PAX_FORMAT,[('/etc/x','x')])
t('two.tar',tarfile.PAX_FORMAT,[('a','1'),('a','2'),('d','f'),('d/x','z')] if False else [('a','1'),('a','2')])
t('fifo.tar',tarfile.PAX_FORMAT,[('p',None,{'type':tarfile.FIFOTYPE}),('c',None,{'type':tarfile.CHRTYPE,'devmajor':1,'devminor':3})])
t('longname.tar',tarfile.PAX_FORMAT,[('/'.join(['x'*90]*4),'x')])
P
