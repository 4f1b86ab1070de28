#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HEAD = 9, PATIENCE_MS = 100, CONFIRMED_MS = 1000, WORKERS_SOCKET = 3, STEP = 1 << 22, MOST_LEAVING = 16 };

static const uint64_t MOST_BYTES = (uint64_t)1 << 33;

struct connection {
    int socket;
    unsigned worker;    /* which one it leads to: they are counted */
    unsigned interrupt; /* how many there had been when the call began */
    connection *next;
};

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static char **command;
static pid_t process = -1, leaving[MOST_LEAVING];
static int control = -1;
static unsigned workers;
static connection *idle;
static bool is_doubtful; /* It was told of Ctrl-C, and has not confirmed that yet. */

extern char **environ;

/* ---- Ctrl-C ---- */

static struct sigaction before;
static volatile unsigned interrupts;
static unsigned told_of; /* how many there had been when the worker was last told of one */

static void on_interrupt(int number, siginfo_t *info, void *context) {
    __atomic_add_fetch(&interrupts, 1, __ATOMIC_RELAXED);
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
    } else {
        before.sa_handler(number);
    }
}

void watch_interrupts(void) {
    struct sigaction now;
    pthread_mutex_lock(&guard);
    /* The shell may have put its own back. Where it has none, Ctrl-C ends the process or is ignored, as it should. */
    if (sigaction(SIGINT, NULL, &now) == 0 && (!(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != on_interrupt) &&
        now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN) {
        struct sigaction ours = now;
        ours.sa_flags = (now.sa_flags & SA_RESTART) | SA_SIGINFO;
        ours.sa_sigaction = on_interrupt;
        before = now;
        sigaction(SIGINT, &ours, NULL);
    }
    pthread_mutex_unlock(&guard);
}

/* ---- The process ---- */

void set_command(char **words) {
    pthread_mutex_lock(&guard);
    if (command) {
        for (char **word = command; *word; word++) {
            free(*word);
        }
        free(command);
    }
    command = words;
    pthread_mutex_unlock(&guard);
}

static void forget_worker(void) {
    is_doubtful = false;
    if (control >= 0) {
        close(control);
        control = -1;
    }
    while (idle) {
        connection *next = idle->next;
        close(idle->socket);
        free(idle);
        idle = next;
    }
}

/* The workers before have ended, or will do so now that nobody holds the other end; each is waited for until it has. */
static void reap(void) {
    for (int i = 0; i < MOST_LEAVING; i++) {
        if (leaving[i] <= 0) {
            leaving[i] = process;
            process = -1;
        }
        if (leaving[i] > 0 && waitpid(leaving[i], NULL, WNOHANG) != 0) {
            leaving[i] = -1;
        }
    }
    process = -1;
}

static bool start_worker(char *error, size_t room) {
    int ends[2];
    if (!command) {
        snprintf(error, room, "the extension jammi was loaded without its announcement; start it by `jammi-duck shell`");
        return false;
    }
    reap();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        snprintf(error, room, "cannot start the jammi worker: %s", strerror(errno));
        return false;
    }
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t blocked, ignored;
    /* Until it ignores Ctrl-C itself: what the terminal sends goes to both processes. */
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigemptyset(&ignored);
    sigaddset(&ignored, SIGPIPE);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], WORKERS_SOCKET);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &blocked);
    posix_spawnattr_setsigdefault(&attributes, &ignored);
    int failed = posix_spawnp(&process, command[0], &actions, &attributes, command, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (failed) {
        close(ends[0]);
        process = -1;
        snprintf(error, room, "cannot start the jammi worker '%s': %s", command[0], strerror(failed));
        return false;
    }
    control = ends[0];
    workers++;
    return true;
}

/* One byte to the worker, with a socket for it or without. */
static bool tell(char what, int socket) {
    struct iovec text = {&what, 1};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } attached;
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    if (socket >= 0) {
        memset(&attached, 0, sizeof attached);
        message.msg_control = attached.room;
        message.msg_controllen = sizeof attached.room;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &socket, sizeof socket);
    }
    ssize_t sent;
    do {
        sent = sendmsg(control, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return sent == 1;
}

static connection *new_connection(char *error, size_t room) {
    int ends[2];
    for (int attempt = 0; attempt < 2; attempt++) {
        if (control < 0 && !start_worker(error, room)) {
            return NULL;
        }
        connection *made = calloc(1, sizeof *made);
        if (!made || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
            free(made);
            snprintf(error, room, "cannot reach the jammi worker: %s", strerror(errno));
            return NULL;
        }
        bool told = tell('c', ends[1]);
        close(ends[1]);
        if (told) {
            made->socket = ends[0];
            made->worker = workers;
            return made;
        }
        close(ends[0]);
        free(made);
        /* It ended between two calls; so start another. */
        forget_worker();
    }
    snprintf(error, room, "the jammi worker ends as soon as it is started");
    return NULL;
}

/* A worker that hangs does not confirm what it is told; so it is killed, and the next call starts another. */
static void end_what_hangs(void) {
    struct pollfd confirmed = {.fd = control, .events = POLLIN};
    char all[64];
    if (!is_doubtful || control < 0) {
        return;
    }
    int ready;
    do {
        ready = poll(&confirmed, 1, CONFIRMED_MS);
    } while (ready < 0 && errno == EINTR);
    if (ready == 1) {
        is_doubtful = recv(control, all, sizeof all, MSG_DONTWAIT) <= 0;
    }
    if (is_doubtful) {
        if (process > 0) {
            kill(process, SIGKILL);
        }
        forget_worker();
    }
}

connection *borrow_connection(char *error, size_t room) {
    pthread_mutex_lock(&guard);
    end_what_hangs();
    connection *found = idle;
    /* One that can be read from, though nothing was asked, is closed at its other end. */
    if (found && poll(&(struct pollfd){.fd = found->socket, .events = POLLIN}, 1, 0) > 0) {
        forget_worker();
        found = NULL;
    }
    if (found) {
        idle = found->next;
    } else {
        found = new_connection(error, room);
    }
    if (found) {
        found->interrupt = __atomic_load_n(&interrupts, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&guard);
    return found;
}

void give_connection(connection *it) {
    pthread_mutex_lock(&guard);
    if (it->worker == workers && control >= 0) {
        it->next = idle;
        idle = it;
        it = NULL;
    }
    pthread_mutex_unlock(&guard);
    if (it) {
        close_connection(it);
    }
}

void close_connection(connection *it) {
    close(it->socket);
    free(it);
}

void describe_end(const connection *of, char *error, size_t room) {
    int status = 0;
    pid_t ended = 0;
    for (int i = 0; ended == 0 && i < 20; i++) {
        if (i) {
            usleep(10000);
        }
        pthread_mutex_lock(&guard);
        /* Another thread may have seen the end before, and even have started the next worker. */
        bool is_known = process > 0 && of->worker == workers;
        ended = is_known ? waitpid(process, &status, WNOHANG) : -1;
        if (is_known && ended != 0) {
            process = -1;
            forget_worker();
        }
        pthread_mutex_unlock(&guard);
    }
    if (ended > 0 && WIFSIGNALED(status)) {
        snprintf(error, room, "the jammi worker was killed by signal %d; the next call starts another", WTERMSIG(status));
    } else if (ended > 0) {
        snprintf(error, room, "the jammi worker ended with exit code %d; the next call starts another", WEXITSTATUS(status));
    } else {
        snprintf(error, room, "the jammi worker ended; the next call starts another");
    }
}

void stop_worker(void) {
    pthread_mutex_lock(&guard);
    forget_worker();
    pthread_mutex_unlock(&guard);
}

/* ---- Frames ---- */

static outcome wait_for(connection *it, short what) {
    for (;;) {
        struct pollfd polled = {.fd = it->socket, .events = what};
        int ready = poll(&polled, 1, PATIENCE_MS);
        unsigned so_far = __atomic_load_n(&interrupts, __ATOMIC_RELAXED);
        if (so_far != it->interrupt) {
            pthread_mutex_lock(&guard);
            if (so_far != told_of) {
                told_of = so_far;
                is_doubtful = control >= 0 && tell('x', -1);
            }
            pthread_mutex_unlock(&guard);
            return INTERRUPTED;
        }
        if (ready > 0) {
            return ARRIVED;
        }
        if (ready < 0 && errno != EINTR) {
            return ENDED;
        }
    }
}

static outcome transfer(connection *it, uint8_t *bytes, size_t size, bool is_sent) {
    while (size) {
        ssize_t done = is_sent ? send(it->socket, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT)
                               : recv(it->socket, bytes, size, MSG_DONTWAIT);
        if (done > 0) {
            bytes += done;
            size -= (size_t)done;
        } else if (done == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
            return ENDED;
        } else {
            outcome waited = wait_for(it, is_sent ? POLLOUT : POLLIN);
            if (waited != ARRIVED) {
                return waited;
            }
        }
    }
    return ARRIVED;
}

void begin_frame(buffer *body) {
    static const uint8_t nothing[HEAD];
    body->size = 0;
    put(body, nothing, HEAD);
}

outcome send_frame(connection *to, buffer *body, uint8_t kind) {
    uint64_t size = body->size - HEAD;
    memcpy(body->bytes, &size, sizeof size);
    body->bytes[HEAD - 1] = kind;
    return transfer(to, body->bytes, body->size, true);
}

outcome receive_frame(connection *from, buffer *body, uint8_t *kind) {
    uint8_t head[HEAD];
    uint64_t size;
    outcome got = transfer(from, head, HEAD, false);
    if (got != ARRIVED) {
        return got;
    }
    memcpy(&size, head, sizeof size);
    *kind = head[HEAD - 1];
    if (size > MOST_BYTES) {
        return MALFORMED;
    }
    release(body);
    /* Memory is asked for as bytes arrive: a frame that only claims to be large costs nothing. */
    do {
        size_t part = size - body->size;
        part = part < body->size + STEP ? part : body->size + STEP;
        uint8_t *grown = realloc(body->bytes, body->size + part + 1);
        if (!grown) {
            return MALFORMED;
        }
        body->bytes = grown;
        body->room = body->size + part + 1;
        got = transfer(from, body->bytes + body->size, part, false);
        body->size += part;
    } while (got == ARRIVED && body->size < size);
    return got;
}
