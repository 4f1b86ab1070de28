/* Threads that share the work of one pass: one that leads it, and helpers that live as long as the pass. */

#ifndef TEAM_H
#define TEAM_H

#include <stdint.h>

#define MOST_MEMBERS 8

struct team;

/* Part `part` of some work, done by the member of this number, below MOST_MEMBERS. */
typedef void task(const void *work, int64_t part, int member);

/* A team of `members` threads, the calling one among them; NULL if that is alone, or there is no memory. */
struct team *team_start(int64_t members);

void team_end(struct team *team);

int64_t team_size(const struct team *team);

/* All `parts` parts of some work, at most a million, whoever does them; without a team, one after the other. */
void team_do(struct team *team, int64_t parts, task *task, const void *work);

#endif
