// Process groups: one backend each, its collectives, and its end.
#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "failure.hpp"
#include "health.hpp"
#include "store.hpp"

extern "C" {

struct nrs_work {
  c10::intrusive_ptr<c10d::Work> work;
  std::shared_ptr<nrs::Health> health;
  // On the CPU what is waited for instead of `work`, see `Health::watch`.
  nrs::Health::Future result;
  // How long NCCL's `work` is waited for.
  std::chrono::milliseconds timeout;
};

struct nrs_group {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  c10::intrusive_ptr<c10d::Backend> backend;
  std::shared_ptr<nrs::Health> health;
  at::Device device{at::kCPU};
  std::chrono::milliseconds timeout{0};
  // Whether reducers may sum through memory that the ranks share.
  bool share = false;
  // Whether reducers send gradients as bfloat16.
  bool compress = false;
  // Collectives are numbered as they start; two at once would be numbered by chance.
  std::mutex starting;
};

}

namespace nrs {

inline c10::intrusive_ptr<c10d::ProcessGroup> wrap(
    const c10::intrusive_ptr<c10d::Store>& store,
    int rank,
    int size,
    at::Device device,
    c10d::ProcessGroup::BackendType type,
    const c10::intrusive_ptr<c10d::Backend>& backend) {
  auto group = c10::make_intrusive<c10d::ProcessGroup>(store, rank, size);
  if (device.is_cuda()) {
    group->setBoundDeviceId(device);
  }
  group->setBackend(device.type(), type, backend);
  group->setDefaultBackend(type);
  return group;
}

inline nrs_group* make_gloo(
    const nrs_store_callbacks* callbacks,
    void* state,
    int rank,
    int size,
    std::chrono::milliseconds timeout,
    const char* host,
    bool share) {
  auto exchanged = std::make_shared<Exchanged>();
  c10::intrusive_ptr<c10d::Store> store =
      c10::make_intrusive<RustStore>(callbacks, state, timeout, exchanged);
  const Inodes before = open_sockets();
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(host));
  auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);

  auto group = std::make_unique<nrs_group>();
  group->health = std::make_shared<Health>();
  group->health->connections.find(before, exchanged->take(), static_cast<size_t>(size) - 1);
  group->backend = backend;
  group->timeout = timeout;
  group->share = share;
  group->group = wrap(
      store, rank, size, group->device, c10d::ProcessGroup::BackendType::GLOO, group->backend);
  return group.release();
}

// Starts one collective, watched: its failure ends the group at once, whoever waits for it or not,
// so that ranks which do not talk to the dead one learn of it from this one.
template <typename Start>
nrs_work* launch(nrs_group& group, Start&& start) {
  std::lock_guard<std::mutex> lock(group.starting);
  group.health->require_alive();
  auto begun = std::make_unique<nrs_work>();
  begun->health = group.health;
  begun->timeout = group.timeout;
  try {
    begun->work = start(*group.backend);
    if (!group.device.is_cuda()) {
      begun->result = group.health->watch(*begun->work->getFuture());
    }
  } catch (...) {
    group.health->rethrow_as_failed_collective();
  }
  return begun.release();
}

// Returns once the result is there for the host: with a timeout NCCL's wait blocks the thread,
// without one it would only order streams.
inline void wait(nrs_work& work) {
  try {
    if (work.result) {
      work.result->waitAndThrow();
    } else if (!work.work->wait(work.timeout)) {
      throw Refusal(kCollective, "the collective was given up");
    }
  } catch (...) {
    work.health->rethrow_as_failed_collective();
  }
}

inline void abort(nrs_group& group, const std::string& reason) {
  group.health->end(reason, true);
  if (group.device.is_cuda()) {
    group.backend->abort();
  }
}

// Frees a group. One with a thread that Gloo has not woken is freed beside what this process does next.
inline void release(std::unique_ptr<nrs_group> group) {
  abort(*group, "its process group was dropped");
  if (group->health->is_left()) {
    return;
  }
  nrs_group* const left = group.release();
  try {
    std::thread([left] { delete left; }).detach();
  } catch (...) {
    // Without a thread it stays: to wait for it here could take as long as a collective may.
  }
}

inline nrs_work* all_reduce(nrs_group& group, const at::Tensor& tensor, int op) {
  static constexpr c10d::ReduceOp::RedOpType kOps[] = {
      c10d::ReduceOp::SUM, c10d::ReduceOp::PRODUCT, c10d::ReduceOp::MIN, c10d::ReduceOp::MAX};
  return launch(group, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = kOps[op];
    options.timeout = group.timeout;
    return backend.allreduce(tensors, options);
  });
}

inline nrs_work* broadcast(nrs_group& group, const at::Tensor& tensor, int root) {
  return launch(group, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    options.timeout = group.timeout;
    return backend.broadcast(tensors, options);
  });
}

inline nrs_work* all_gather(nrs_group& group, at::Tensor output, at::Tensor input) {
  return launch(group, [&](c10d::Backend& backend) {
    c10d::AllgatherOptions options;
    options.timeout = group.timeout;
    return backend._allgather_base(output, input, options);
  });
}

inline nrs_work* barrier(nrs_group& group) {
  return launch(group, [&](c10d::Backend& backend) {
    c10d::BarrierOptions options;
    options.timeout = group.timeout;
    if (group.device.is_cuda()) {
      options.device = group.device;
      options.device_ids = {group.device.index()};
    }
    return backend.barrier(options);
  });
}

}  // namespace nrs
