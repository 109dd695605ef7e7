mkdir real; ln -s real l; ln -s nowhere dang; echo f>f
