/* The load worker's hot path: wait, read what came, stamp it, keep it; one call per wake-up, whatever came.
 *
 * Only answers in the middle of their stream are read here (`receive.py` says which). Each has an inbox, out of which
 * Python takes many pieces at once. Everything else, and every piece after which an answer may be over, is told.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

enum { SO_TIMESTAMPNS_OLD_ = 35, READ_BYTES = 65536, MOST = 256, LAST = 5 };
enum { PLAIN = 0, LOOK = 1, CLOSED = 2, BROKEN = 3, PIECE = 4 };

struct inbox {
    int64_t sent_ns, last_ns; /* of the request, and of the last piece: CLOCK_MONOTONIC */
    int64_t count, size, unstamped;
    char *data;
    int64_t *stamps, *seen;
    int32_t *lengths;
    int64_t room, places;
    int32_t live;
};

struct receiver {
    int64_t offset_ns;     /* CLOCK_REALTIME, in which the kernel stamps, less CLOCK_MONOTONIC */
    int64_t round_trip_ns; /* a piece that comes so soon after one of its stream is `quick` */
    int64_t quick;
    int64_t count, size; /* in all inboxes */
    int64_t realtime_ns, seen_ns, bytes; /* of the PIECE in `buffer`: its stamp cannot be, or no memory is left for it */
    int64_t capacity;
    struct inbox **inboxes; /* by descriptor */
    char buffer[READ_BYTES];
};

struct told {
    int32_t fd;
    uint32_t mask;
    int32_t what, error;
};

static int64_t nanoseconds(const struct timespec *t) { return t->tv_sec * INT64_C(1000000000) + t->tv_nsec; }

struct receiver *receiver_open(void) { return calloc(1, sizeof(struct receiver)); }

void inbox_close(struct receiver *r, int fd) {
    struct inbox *box = fd < r->capacity ? r->inboxes[fd] : NULL;
    if (!box) return;
    r->inboxes[fd] = NULL;
    r->count -= box->count, r->size -= box->size;
    free(box->data), free(box->stamps), free(box->seen), free(box->lengths), free(box);
}

void receiver_close(struct receiver *r) {
    for (int64_t fd = 0; fd < r->capacity; fd++) inbox_close(r, fd);
    free(r->inboxes), free(r);
}

/* What was in it has been taken. */
void inbox_empty(struct receiver *r, struct inbox *box) {
    r->count -= box->count, r->size -= box->size;
    box->count = box->size = box->unstamped = 0;
}

/* NULL when there is no memory. */
struct inbox *inbox_open(struct receiver *r, int fd) {
    if (fd >= r->capacity) {
        int64_t capacity = 2 * (int64_t)fd + 64;
        struct inbox **more = realloc(r->inboxes, capacity * sizeof *more);
        if (!more) return NULL;
        memset(more + r->capacity, 0, (capacity - r->capacity) * sizeof *more);
        r->inboxes = more, r->capacity = capacity;
    }
    if (!r->inboxes[fd]) r->inboxes[fd] = calloc(1, sizeof(struct inbox));
    return r->inboxes[fd];
}

static int grow(void **what, int64_t bytes) {
    void *more = realloc(*what, bytes);
    if (more) *what = more;
    return more != NULL;
}

/* 0 when there is no memory. */
static int has_room(struct inbox *box, int64_t bytes) {
    if (box->size + bytes > box->room) {
        int64_t room = 2 * (box->size + bytes);
        if (!grow((void **)&box->data, room)) return 0;
        box->room = room;
    }
    if (box->count == box->places) {
        int64_t places = box->places ? 2 * box->places : 8;
        if (!grow((void **)&box->stamps, places * sizeof(int64_t))) return 0;
        if (!grow((void **)&box->seen, places * sizeof(int64_t))) return 0;
        if (!grow((void **)&box->lengths, places * sizeof(int32_t))) return 0;
        box->places = places;
    }
    return 1;
}

/* 0 when there was no stamp with it. */
static int64_t stamp_of(struct msghdr *message) {
    for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head; head = CMSG_NXTHDR(message, head))
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SO_TIMESTAMPNS_OLD_) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(head), sizeof stamp);
            return nanoseconds(&stamp);
        }
    return 0;
}

/* What is to be told of it, -1 for nothing. */
static int take(struct receiver *r, struct inbox *box, struct told *told) {
    _Alignas(struct cmsghdr) char control[64]; /* cmsg(3): its headers are read in place */
    struct iovec part = {r->buffer, READ_BYTES};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    message.msg_control = control, message.msg_controllen = sizeof control;
    ssize_t got = recvmsg(told->fd, &message, MSG_DONTWAIT);
    if (got < 0) {
        told->error = errno;
        return errno == EAGAIN || errno == EINTR ? -1 : BROKEN;
    }
    if (got == 0) return CLOSED;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t seen = nanoseconds(&now), realtime = stamp_of(&message), stamp = realtime ? realtime - r->offset_ns : seen;
    int wall_clock_was_set = stamp < box->sent_ns || stamp > seen;
    if (wall_clock_was_set || !has_room(box, got)) {
        r->realtime_ns = realtime, r->seen_ns = box->last_ns = seen, r->bytes = got;
        return PIECE;
    }
    memcpy(box->data + box->size, r->buffer, got);
    box->unstamped += stamp == seen;
    r->quick += stamp - box->last_ns < r->round_trip_ns;
    box->last_ns = seen;
    box->lengths[box->count] = got, box->stamps[box->count] = stamp, box->seen[box->count] = seen;
    box->count++, box->size += got, r->count++, r->size += got;
    return got < LAST || !memcmp(r->buffer + got - LAST, "0\r\n\r\n", LAST) ? LOOK : -1;
}

/* Waits, `timeout_ms` at most (-1: for ever), and deals with up to `most` descriptors; `*found` is how many there were.
 * Returns of how many there is something to tell, in `told`, or -errno. After a PIECE the rest is told as it is, since
 * there is one buffer only. */
int receiver_wait(struct receiver *r, int epoll, int timeout_ms, int most, struct told *told, int *found) {
    struct epoll_event events[MOST];
    int n = epoll_wait(epoll, events, most < MOST ? most : MOST, timeout_ms), out = 0, full = 0;
    *found = n > 0 ? n : 0;
    for (int i = 0; i < n; i++) {
        struct told one = {events[i].data.fd, events[i].events, PLAIN, 0};
        struct inbox *box = one.fd < r->capacity ? r->inboxes[one.fd] : NULL;
        if (box && box->live && one.mask & EPOLLIN && !full) {
            one.what = take(r, box, &one);
            full = one.what == PIECE;
        }
        if (one.what >= 0) told[out++] = one;
    }
    return n < 0 && errno != EINTR ? -errno : out;
}
