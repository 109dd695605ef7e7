mkdir -p d/s d1
touch a b x.log y.log d/b d/x.log d/s/y d/s/x.log d1/q d/keep.log
