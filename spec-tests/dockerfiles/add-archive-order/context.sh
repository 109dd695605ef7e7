echo intar>f
tar cf t.tar f
echo plain>f
