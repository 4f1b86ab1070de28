/*
 * The system calls of udfs/native/worker.c, pretended: what "arrives" is what `begin_system` was given, in pieces, with
 * interruptions and failures as `habits` say. It keeps a record of open files, and aborts where one is closed twice.
 */
#ifndef JAMMI_SYSTEM_H
#define JAMMI_SYSTEM_H

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    IN_PIECES = 3, /* of all, 1, 7 or 64 bytes */
    DELAYS = 4,
    SIGNALS = 8,
    CTRL_C = 16,
    IDLE_CLOSED = 32,
    NO_CONFIRMATION = 64,
    NO_PROGRAM = 128,
    ENDS_AT_ONCE = 256,
    ENDED_BETWEEN = 512,
    KILLED = 1024,
    RUNS_ON = 2048,
    NO_SOCKETS = 4096,
};

enum { FIRST_FILE = 1000, FILES = 64, PID = 12345, BETWEEN = 100 };

static struct {
    const uint8_t *at, *end;
    unsigned habits, calls, starts, sum;
    bool is_open[FILES];
} outside;

static void on_interrupt(int number, siginfo_t *info, void *context);
static int control;

static void begin_system(unsigned habits, const uint8_t *at, const uint8_t *end) {
    memset(&outside, 0, sizeof outside);
    outside.habits = habits;
    outside.at = at;
    outside.end = end;
}

static bool has_habit(unsigned habit) { return (outside.habits & habit) != 0; }

static void refuse(const char *what) {
    fprintf(stderr, "%s\n", what);
    abort();
}

static void check_closed(void) {
    for (int i = 0; i < FILES; i++) {
        if (outside.is_open[i]) {
            refuse("a file is left open");
        }
    }
}

static int open_file(void) {
    for (int i = 0; i < FILES; i++) {
        if (!outside.is_open[i]) {
            outside.is_open[i] = true;
            return FIRST_FILE + i;
        }
    }
    refuse("too many files are open");
    return -1;
}

static void check_open(int file) {
    if (file < FIRST_FILE || file >= FIRST_FILE + FILES || !outside.is_open[file - FIRST_FILE]) {
        refuse("a file is used that is not open");
    }
}

static int pretend_socketpair(int domain, int type, int protocol, int ends[2]) {
    (void)domain, (void)type, (void)protocol;
    if (has_habit(NO_SOCKETS) && ++outside.starts % 2) {
        errno = EMFILE;
        return -1;
    }
    ends[0] = open_file();
    ends[1] = open_file();
    return 0;
}

static int pretend_close(int file) {
    check_open(file);
    outside.is_open[file - FIRST_FILE] = false;
    return 0;
}

/* How much of `size` bytes goes through now; below 0 where nothing does. */
static ssize_t piece(size_t size) {
    static const size_t most[] = {SIZE_MAX, 1, 7, 64};
    unsigned turn = ++outside.calls % 3;
    if (turn == 0 && has_habit(DELAYS | CTRL_C)) {
        errno = EAGAIN;
        return -1;
    }
    if (turn == 1 && has_habit(SIGNALS)) {
        errno = EINTR;
        return -1;
    }
    size_t limit = most[outside.habits & IN_PIECES];
    return (ssize_t)(size < limit ? size : limit);
}

static ssize_t pretend_send(int file, const void *bytes, size_t size, int flags) {
    (void)flags;
    check_open(file);
    ssize_t sent = piece(size);
    for (ssize_t i = 0; i < sent; i++) {
        outside.sum += ((const uint8_t *)bytes)[i];
    }
    return sent;
}

static ssize_t receive_confirmation(uint8_t *to) {
    *to = 'x';
    return has_habit(NO_CONFIRMATION) ? 0 : 1;
}

static ssize_t pretend_recv(int file, void *to, size_t size, int flags) {
    (void)flags;
    check_open(file);
    if (file == control) {
        return receive_confirmation(to);
    }
    size_t left = (size_t)(outside.end - outside.at);
    ssize_t got = piece(size < left ? size : left);
    if (got > 0) {
        memcpy(to, outside.at, (size_t)got);
        outside.at += got;
    }
    return got;
}

static ssize_t pretend_sendmsg(int file, const struct msghdr *message, int flags) {
    (void)message, (void)flags;
    check_open(file);
    if (has_habit(ENDS_AT_ONCE) || (has_habit(ENDED_BETWEEN) && outside.starts++ == 0)) {
        errno = EPIPE;
        return -1;
    }
    return 1;
}

static int pretend_poll(struct pollfd *files, nfds_t count, int wait_ms) {
    (void)count;
    check_open(files->fd);
    if (wait_ms == 0) {
        return has_habit(IDLE_CLOSED);
    }
    if (wait_ms > BETWEEN) {
        return !has_habit(NO_CONFIRMATION);
    }
    if (has_habit(CTRL_C)) {
        on_interrupt(SIGINT, NULL, NULL);
        errno = EINTR;
        return -1;
    }
    return 1;
}

static int pretend_posix_spawnp(pid_t *process, const char *program, const posix_spawn_file_actions_t *actions,
                                const posix_spawnattr_t *attributes, char *const words[], char *const environment[]) {
    (void)program, (void)actions, (void)attributes, (void)words, (void)environment;
    *process = PID;
    return has_habit(NO_PROGRAM) ? ENOENT : 0;
}

static pid_t pretend_waitpid(pid_t process, int *status, int options) {
    (void)options;
    if (status) {
        *status = has_habit(KILLED) ? SIGKILL : 1 << 8;
    }
    return has_habit(RUNS_ON) ? 0 : process;
}

static int pretend_kill(pid_t process, int number) {
    (void)number;
    if (process != PID) {
        refuse("a foreign process is killed");
    }
    return 0;
}

static int pretend_usleep(useconds_t time) {
    (void)time;
    return 0;
}

static void ignore_interrupt(int number) { (void)number; }

static int pretend_sigaction(int number, const struct sigaction *now, struct sigaction *before_it) {
    static struct sigaction installed = {.sa_handler = ignore_interrupt};
    if (number != SIGINT) {
        refuse("a signal is caught that is not Ctrl-C");
    }
    if (before_it) {
        *before_it = installed;
    }
    if (now) {
        installed = *now;
    }
    return 0;
}

#define socketpair pretend_socketpair
#define close pretend_close
#define send pretend_send
#define recv pretend_recv
#define sendmsg pretend_sendmsg
#define poll pretend_poll
#define posix_spawnp pretend_posix_spawnp
#define waitpid pretend_waitpid
#define kill pretend_kill
#define usleep pretend_usleep
/* Not the struct of that name. */
#define sigaction(number, now, before_it) pretend_sigaction(number, now, before_it)

#endif
