mkdir base more
echo a >base/a
touch more/.wh.a
tar cf t.tar -C more .wh.a
