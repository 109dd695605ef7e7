ln -s nowhere dangle
