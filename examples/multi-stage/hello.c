#include <stdio.h>
#include <unistd.h>

int main(void) {
  printf("%s that another stage compiled, running as user %d.\n", GREETING, (int)getuid());
  return 0;
}
