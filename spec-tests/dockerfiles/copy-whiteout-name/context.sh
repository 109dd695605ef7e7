mkdir base more
echo a >base/a
touch more/.wh.a
