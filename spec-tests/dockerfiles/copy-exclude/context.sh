mkdir -p d/s d1
touch a x.log y.log d/b d/x.log d/s/y d/s/x.log d1/q
