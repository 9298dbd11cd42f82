#include "tests/fakes/hash_worker.h"
