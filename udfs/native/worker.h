/* The worker process: it is started by the first call, and ends with this process. docs/worker-protocol.md has the frames. */
#ifndef JAMMI_WORKER_H
#define JAMMI_WORKER_H

#include "columns.h"

enum { CALL = 1, RESULT = 2, ANSWER = 3, FAILURE = 4, SQL = 5 };

typedef enum { ARRIVED, ENDED, INTERRUPTED, MALFORMED } outcome;

/* One conversation with the worker; calls of different threads have one each. */
typedef struct connection connection;

/* What starts the worker: its program and arguments, ended by NULL. */
void set_command(char **words);

/* A connection that nobody else uses, or NULL with the reason in `error`. */
connection *borrow_connection(char *error, size_t room);

/* Give one back, to be used again; `close_connection` where it is of no use any more. */
void give_connection(connection *it);
void close_connection(connection *it);

/* Send a frame: `body` begins with 9 bytes that are filled in here, as `begin_frame` leaves them. */
void begin_frame(buffer *body);
outcome send_frame(connection *to, buffer *body, uint8_t kind);

/* Receive a frame into `body`, to be freed by `release`. */
outcome receive_frame(connection *from, buffer *body, uint8_t *kind);

/* How the worker of a connection ended, as words; and forget it, so that the next call starts another. */
void describe_end(const connection *of, char *error, size_t room);

/* Let the worker end. */
void stop_worker(void);

/* Ctrl-C, noticed while a call is under way. */
void watch_interrupts(void);

#endif
