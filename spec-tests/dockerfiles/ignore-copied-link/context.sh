mkdir d; echo x>d/f; ln -s d l; echo d >.dockerignore
