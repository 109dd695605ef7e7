greet() { echo "Hello from a library to $1, in $STAGE."; }
