// Preloaded into the processes of a trial: each waits before main until the patcher has seen to it.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

// A patcher that is gone closes the socket, and the process goes on.
__attribute__((constructor)) static void hold(void) {
  const char* path = getenv("KCARE_TRIAL");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (path == NULL || strlen(path) >= sizeof address.sun_path) {
    return;
  }
  strcpy(address.sun_path, path);
  const int saved = errno;
  const int channel = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (channel >= 0) {
    char text[32];
    const int length = snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (connect(channel, (const struct sockaddr*)&address, sizeof address) == 0 &&
        write(channel, text, (size_t)length) == length) {
      while (read(channel, text, 1) < 0 && errno == EINTR) {
      }
    }
    close(channel);
    // The scratch process has nothing to do, least of all what the program would do.
    if (getenv("KCARE_TRIAL_STAY") != NULL) {
      _exit(0);
    }
  }
  errno = saved;
}
