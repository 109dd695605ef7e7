mknod blk b 7 0
