/* The only program of a test container: answers "hello" on TCP port 80 until it is told to stop. */
#include <arpa/inet.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    static const char hello[] = "hello\n";
    const struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(80)};
    const int on = 1;

    signal(SIGTERM, _exit);
    signal(SIGINT, _exit);
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (const struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 8) != 0)
        return 1;
    for (;;) {
        const int caller = accept(listener, NULL, NULL);
        if (caller < 0)
            continue;
        if (write(caller, hello, strlen(hello)) < 0) {
            close(caller);
            continue;
        }
        close(caller);
    }
}
