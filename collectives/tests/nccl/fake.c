/* Stands in for NCCL where there is no GPU: the ranks are threads of one process, and the memory is the host's. As with the
   real one, calls on a communicator return at once, and are done when all ranks have made them. What is to go wrong is said
   when it is compiled: GONE ranks are found closed, an OLD library lacks a function. */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { char bytes[128]; } unique_t;
typedef struct { size_t size; unsigned magic, version; int blocking; } config_t;
/* A call, made by `arrived` ranks so far; the rest is of the rank at that place. */
enum { NONE, JOIN, REDUCE, GATHER, BROADCAST, FINALIZE };
struct comm { int rank, calls, finalized; };
static struct { int kind, root; const char *from[16]; char *to[16]; size_t bytes; } call;
static int ranks, arrived, done, aborted, destroyed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void carry_out(void) {
    char *row = malloc(call.bytes * ranks + 1);
    if (call.kind == REDUCE)
        for (size_t i = 0; i < call.bytes / 4; i++) {
            float sum = 0;
            for (int r = 0; r < ranks; r++) sum += ((const float *)call.from[r])[i];
            ((float *)row)[i] = sum;
        }
    else if (call.kind == GATHER)
        for (int r = 0; r < ranks; r++) memcpy(row + r * call.bytes, call.from[r], call.bytes);
    else if (call.kind == BROADCAST)
        memcpy(row, call.from[call.root], call.bytes);
    size_t size = call.kind == GATHER ? call.bytes * ranks : call.bytes;
    for (int r = 0; r < ranks; r++)
        if (call.to[r]) memcpy(call.to[r], row, size);
    free(row);
}

/* 7: in progress; 5: not what the others do. */
static int make(struct comm *comm, int kind, const void *from, void *to, size_t bytes, int root) {
    int code = 7;
    pthread_mutex_lock(&lock);
    if (arrived == 0)
        call.kind = kind, call.bytes = bytes, call.root = root;
    if (call.kind != kind || call.bytes != bytes || call.root != root)
        code = 5;
    else {
        call.from[comm->rank] = from, call.to[comm->rank] = to;
        comm->calls++;
        if (++arrived == ranks) {
            carry_out();
            arrived = 0, done++;
        }
    }
    pthread_mutex_unlock(&lock);
    return code;
}

int ncclGetVersion(int *version) { *version = VERSION; return 0; }
int ncclGetUniqueId(unique_t *id) { memset(id, 7, sizeof *id); return 0; }
const char *ncclGetErrorString(int code) { return code == 6 ? "remote process exited" : "invalid usage"; }
const char *ncclGetLastError(void *comm) { return comm ? "socket closed" : ""; }

#ifndef OLD
int ncclCommInitRankConfig(struct comm **comm, int count, unique_t id, int rank, config_t *config) {
    if (config->magic != 0xcafebeefu || config->version != 21400 || config->size < sizeof *config || config->blocking)
        return 5;
    for (int i = 0; i < 128; i++)
        if (id.bytes[i] != 7) return 5;
    *comm = calloc(1, sizeof **comm);
    (*comm)->rank = rank;
    ranks = count;
    return make(*comm, JOIN, NULL, NULL, 0, 0);
}
#endif

int ncclCommGetAsyncError(struct comm *comm, int *state) {
    pthread_mutex_lock(&lock);
    *state = comm->calls <= done ? 0 : 7;
#ifdef GONE
    *state = 6;
#endif
    pthread_mutex_unlock(&lock);
    return 0;
}

static size_t width(int type) { return type == 7 ? 4 : type == 5 ? 8 : type == 1 ? 1 : 0; }
int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, struct comm *comm, void *stream) {
    (void)stream;
    return type == 7 && op == 0 ? make(comm, REDUCE, from, to, 4 * count, 0) : 5;
}
int ncclAllGather(const void *from, void *to, size_t count, int type, struct comm *comm, void *stream) {
    (void)stream;
    return make(comm, GATHER, from, to, width(type) * count, 0);
}
int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, struct comm *comm, void *stream) {
    (void)stream;
    return root < ranks ? make(comm, BROADCAST, from, to, width(type) * count, root) : 5;
}
int ncclCommFinalize(struct comm *comm) { comm->finalized = 1; return make(comm, FINALIZE, NULL, NULL, 0, 0); }
int ncclCommDestroy(struct comm *comm) { destroyed++; return comm->finalized ? 0 : 5; }
int ncclCommAbort(struct comm *comm) { (void)comm; aborted++; return 0; }

/* For the test. */
int fake_aborted(void) { return aborted; }
int fake_destroyed(void) { return destroyed; }
