python3 -c '
import os
open(b"d\xffx","w").write("1"); os.mkdir(b"sub\xfe"); open(b"sub\xfe/\xe9","w").write("2"); os.symlink(b"t\xff",b"sub\xfe/l")'
