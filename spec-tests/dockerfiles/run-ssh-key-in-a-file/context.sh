ssh-keygen -q -t ed25519 -N '' -C 'a key of this test' -f key
