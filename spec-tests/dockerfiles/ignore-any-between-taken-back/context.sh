mkdir -p a/b/c d/e docs/x node_modules/p/node_modules/q .git/o 'sp ace' foo/bar
for f in a/1.txt a/b/2.txt a/b/c/3.txt a/b/c/4.log d/e/5.md d/README.md README.md top.txt top.log docs/x/y.md docs/z.md node_modules/p/i.js node_modules/p/node_modules/q/j.js src.go .git/o/x .hidden 'sp ace/f' foo/bar/baz foo/qux 'a*b' ab '[x]' '#c' '!bang' 'trail ' ; do echo "$f" > "$f"; done
mkdir empty d/empty2
cat > .dockerignore <<'EOF__'
foo/**/baz
!foo/bar
EOF__
