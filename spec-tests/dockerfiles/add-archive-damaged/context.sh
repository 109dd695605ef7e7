python3 - <<'P'
import gzip, io, random, tarfile
random.seed(1)
b = io.BytesIO(); w = tarfile.open(fileobj=b, mode="w"); i = tarfile.TarInfo("f"); i.size = 100000
w.addfile(i, io.BytesIO(random.randbytes(100000))); w.close()
open("t.tgz", "wb").write(gzip.compress(b.getvalue())[:50000])
P
