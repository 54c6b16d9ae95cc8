/* Preloaded into a server that listens on every interface and has no option for it: every wildcard
   address that it binds becomes the loopback address of the same family. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

typedef int (*bind_function)(int, const struct sockaddr *, socklen_t);

int bind(int socket, const struct sockaddr *address, socklen_t length)
{
    bind_function original = (bind_function)dlsym(RTLD_NEXT, "bind");
    struct sockaddr_storage local;

    if (address == NULL || length > sizeof local)
        return original(socket, address, length);
    memcpy(&local, address, length);
    if (local.ss_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)&local;
        if (v4->sin_addr.s_addr == htonl(INADDR_ANY))
            v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else if (local.ss_family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&local;
        if (IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr))
            v6->sin6_addr = in6addr_loopback;
    }
    return original(socket, (struct sockaddr *)&local, length);
}
