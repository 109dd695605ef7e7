echo 1 >'a*b'
echo 2 >axb
echo 4 >'arr[0]'
echo 5 >'with space'
