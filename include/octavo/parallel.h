// How work is spread over threads. The library never starts threads behind a caller's back: every function that can use
// several takes a Parallel, and a caller's own (torch's, a server's) fits behind the same interface.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace octavo {

// A reference to a callable, valid while the callable lives. Costs one indirect call and no allocation.
template <class Signature>
class FunctionRef;

template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
      FunctionRef(F&& f)  // NOLINT(bugprone-forwarding-reference-overload)
      : object_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}

  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

class Parallel {
 public:
  using Body = FunctionRef<void(std::int64_t begin, std::int64_t end)>;

  virtual ~Parallel() = default;
  virtual int num_threads() const = 0;
  // Calls body on disjoint ranges that cover [begin, end), each of at least `grain` items where possible, and returns when
  // all are done. The body must not throw, and must give the same result however the range is cut.
  virtual void run(std::int64_t begin, std::int64_t end, std::int64_t grain, Body body) = 0;
};

// Runs everything on the calling thread.
Parallel& serial();

// Threads this process may use: OCTAVO_NUM_THREADS if set, else the CPUs of its affinity mask, at most the CPU quota of its
// cgroup (rounded up), at least 1.
int default_num_threads();

// A pool of num_threads - 1 workers beside the calling thread. Workers sleep when there is no work.
std::unique_ptr<Parallel> make_thread_pool(int num_threads = default_num_threads());

}  // namespace octavo
