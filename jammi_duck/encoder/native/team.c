#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "model.h"

/* How often a member looks for work before it lets others have the core. */
#define LOOKS 4096

/* A ticket is the number of the work, its parts, and the next part that nobody has taken. */
#define FIELD 20
#define LAST ((1ull << FIELD) - 1)

struct team {
    _Atomic uint64_t ticket;
    _Atomic int64_t done; /* parts */
    atomic_bool is_over;
    task *task; /* the leader changes these two only while no part is in work */
    const void *work;
    int64_t helpers;
    struct helper {
        struct team *team;
        int number;
        pthread_t thread;
    } helper[MOST_MEMBERS];
};

static void rest(int *looks) {
    if (++*looks % LOOKS == 0) sched_yield();
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

/* Whether there was a part to do. Who takes one, by its ticket, knows that its work is not over. */
static bool do_part(struct team *team, int member) {
    uint64_t ticket = atomic_load_explicit(&team->ticket, memory_order_acquire);
    if ((ticket & LAST) >= (ticket >> FIELD & LAST)) return false;
    if (atomic_compare_exchange_strong(&team->ticket, &ticket, ticket + 1)) {
        team->task(team->work, (int64_t)(ticket & LAST), member);
        atomic_fetch_add_explicit(&team->done, 1, memory_order_release);
    }
    return true;
}

static void *help(void *given) {
    struct helper *me = given;
    for (int looks = 0; !atomic_load_explicit(&me->team->is_over, memory_order_acquire);)
        if (!do_part(me->team, me->number)) rest(&looks);
    return NULL;
}

struct team *team_start(int64_t members) {
    if (members > MOST_MEMBERS) members = MOST_MEMBERS;
    struct team *team = members > 1 ? memory(sizeof *team) : NULL;
    if (!team) return NULL;
    *team = (struct team){0};
    sigset_t all, before;
    sigfillset(&all);
    /* Signals are for the threads of the program. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; team->helpers < members - 1; team->helpers++) {
        struct helper *helper = &team->helper[team->helpers];
        *helper = (struct helper){.team = team, .number = (int)team->helpers + 1};
        if (pthread_create(&helper->thread, NULL, help, helper)) break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return team;
}

void team_end(struct team *team) {
    if (!team) return;
    atomic_store_explicit(&team->is_over, true, memory_order_release);
    for (int64_t i = 0; i < team->helpers; i++) pthread_join(team->helper[i].thread, NULL);
    release(team);
}

int64_t team_size(const struct team *team) { return team ? team->helpers + 1 : 1; }

void team_do(struct team *team, int64_t parts, task *task, const void *work) {
    if (!team) {
        for (int64_t part = 0; part < parts; part++) task(work, part, 0);
        return;
    }
    uint64_t number = (atomic_load_explicit(&team->ticket, memory_order_relaxed) >> 2 * FIELD) + 1;
    team->task = task;
    team->work = work;
    atomic_store_explicit(&team->done, 0, memory_order_relaxed);
    atomic_store_explicit(&team->ticket, number << 2 * FIELD | (uint64_t)parts << FIELD, memory_order_release);
    while (do_part(team, 0)) continue;
    for (int looks = 0; atomic_load_explicit(&team->done, memory_order_acquire) < parts;) rest(&looks);
}
