// Run under mpirun by the test below it in CMake: ranks that believe they are on two hosts (the
// first argument says how many are on the first), meeting over shared memory and MPI. Prints "ok"
// on rank 0.
#include <mpi.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "worker/comm/comm.h"

namespace {

int check(bool good, const char* what) {
  if (!good) {
    std::fprintf(stderr, "mpi_ranks: %s\n", what);
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  int provided = 0, rank = 0, world = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world);
  const int split = argc > 1 ? std::atoi(argv[1]) : 1;
  int id = rank == 0 ? static_cast<int>(getpid()) : 0;
  MPI_Bcast(&id, 1, MPI_INT, 0, MPI_COMM_WORLD);

  quire::DeviceOptions device_options;
  device_options.kind = "reference";
  auto device = quire::open_device(device_options);
  check(device.ok(), "no device");
  quire::CommOptions options;
  options.rank = rank;
  options.world = world;
  options.name = absl::StrCat("mpi.", id);
  options.part_bytes = 1 << 16;
  options.first_local_rank = rank < split ? 0 : split;
  options.num_local_ranks = rank < split ? split : world - split;
  auto comm = quire::open_host_comm(options, **device);
  check(comm.ok(), std::string(comm.status().message()).c_str());

  std::vector<quire::TokenId> ends;  // rank r owns id r
  for (int r = 1; r <= world; ++r) ends.push_back(r);
  for (int round = 0; round < 300; ++round) {
    const int rows = 1 + round % 9, columns = 16;
    std::vector<std::int32_t> owners;
    std::vector<float> out(static_cast<std::size_t>(rows * columns));
    float* mine = (*comm)->begin_select(rows, columns);
    for (int t = 0; t < rows; ++t) {
      owners.push_back((t + round) % world);
      for (int c = 0; c < columns; ++c)
        mine[t * columns + c] = static_cast<float>(rank * 100000 + round * 100 + t);
    }
    (*comm)->select(ends, owners.data(), rows, columns, out.data());
    check((*device)->wait().ok(), "an exchange failed");
    for (int t = 0; t < rows; ++t) {
      const float expected = static_cast<float>((t + round) % world * 100000 + round * 100 + t);
      check(out[static_cast<std::size_t>(t * columns)] == expected,
            "a row came from the wrong rank");
    }
  }
  if (rank == 0) std::printf("ok\n");
  MPI_Finalize();
  return 0;
}
