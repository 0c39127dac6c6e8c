// The emulator's runtime: runs the threads of a block as fibers and checks what they do.  It is compiled once, without
// instrumentation, and linked into every kernel library.
#include <link.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "launch.hpp"

// One translation unit; in this order each part uses the ones before it.
#include "host/state.hpp"
#include "host/report.hpp"
#include "host/scheduler.hpp"
#include "host/clocks.hpp"
#include "host/sites.hpp"
#include "host/races.hpp"
#include "host/access.hpp"
#include "host/transactions.hpp"
#include "host/barriers.hpp"
#include "host/async_copies.hpp"
#include "../hopper/runtime/state.hpp"
#include "../hopper/runtime/barriers.hpp"
#include "../hopper/runtime/copies.hpp"
#include "../hopper/runtime/wgmma.hpp"
#include "host/callbacks.hpp"
#include "host/run.hpp"
