// The file is text: form, GPU and library version, then a line a shape (format, bucket, N, K, the
// two strides, bias, the three alignments, microseconds, the algorithm's eight words in hex), and
// last the FNV-1a sum of all that, in hex.
#include "kernels/cuda/linear/lt_table.h"

#include <unistd.h>

#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace quire::cuda {
namespace {

constexpr char kForm[] = "quire cublaslt algorithms 1";

// FNV-1a.
std::uint64_t checksum(const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

std::string file_name(const std::string& gpu, const std::string& library) {
  std::string name = "cublaslt-" + gpu + "-" + library + ".txt";
  for (char& c : name) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.';
    if (!plain) c = '-';
  }
  return name;
}

void write_row(const LtShape& s, const LtChoice& choice, std::ostream& out) {
  out << traits(s.format).name << std::dec << ' ' << s.bucket << ' ' << s.rows << ' ' << s.columns
      << ' ' << s.weight_stride << ' ' << s.out_stride << ' ' << s.has_bias << ' '
      << s.weight_alignment << ' ' << s.input_alignment << ' ' << s.out_alignment << ' '
      << choice.microseconds << std::hex;
  for (const std::uint64_t word : choice.algorithm) out << ' ' << word;
  out << '\n';
}

bool read_row(const std::string& line, LtShape& s, LtChoice& choice) {
  std::istringstream in(line);
  std::string format, rest;
  in >> format >> s.bucket >> s.rows >> s.columns >> s.weight_stride >> s.out_stride >>
      s.has_bias >> s.weight_alignment >> s.input_alignment >> s.out_alignment >>
      choice.microseconds >> std::hex;
  for (std::uint64_t& word : choice.algorithm) in >> word;
  s.format = format == traits(Format::kF16).name ? Format::kF16 : Format::kBf16;
  return !in.fail() && !(in >> rest) && format == traits(s.format).name;
}

std::optional<std::string> contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace

LtTable::LtTable(const std::string& folder, const std::string& gpu, const std::string& library,
                 Log log)
    : gpu_(gpu), library_(library), log_(std::move(log)) {
  if (folder.empty()) return;
  path_ = folder + "/" + file_name(gpu, library);
  stored_ = read();
}

const LtChoice* LtTable::find(const LtShape& shape) const {
  const auto found = used_.find(shape);
  return found != used_.end() && found->second.has_value() ? &*found->second : nullptr;
}

const LtChoice* LtTable::find_like(const LtShape& shape) const {
  for (const auto& [used, choice] : used_) {
    if (choice.has_value() && used.format == shape.format && used.bucket == shape.bucket &&
        used.rows == shape.rows && used.columns == shape.columns) {
      return &*choice;
    }
  }
  return nullptr;
}

const LtChoice* LtTable::choose(const LtShape& shape, const LtProbe& probe, bool may_time) {
  const auto [found, is_new] = used_.try_emplace(shape);
  std::optional<LtChoice>& choice = found->second;
  if (!is_new) return choice.has_value() ? &*choice : nullptr;
  const auto stored = stored_.find(shape);
  if (stored != stored_.end() && probe.fits(stored->second.algorithm)) {
    choice = stored->second;
  } else if (may_time) {
    if (stored != stored_.end()) unfit_.insert(shape);
    choice = measure(probe);
    if (choice.has_value() && !path_.empty()) write();
  } else if (const std::vector<LtAlgorithm> all = probe.candidates(); !all.empty()) {
    choice = LtChoice{all.front(), 0.0};
  }
  return choice.has_value() ? &*choice : nullptr;
}

std::optional<LtChoice> LtTable::measure(const LtProbe& probe) const {
  std::optional<LtChoice> best;
  for (const LtAlgorithm& algorithm : probe.candidates()) {
    const std::optional<double> time = probe.time(algorithm);
    if (time.has_value() && (!best.has_value() || *time < best->microseconds)) {
      best = LtChoice{algorithm, *time};
    }
  }
  return best;
}

std::string LtTable::text(const Rows& rows) const {
  std::ostringstream out;
  out << kForm << '\n' << gpu_ << '\n' << library_ << '\n';
  for (const auto& [shape, choice] : rows) write_row(shape, choice, out);
  std::string body = out.str();
  std::ostringstream sum;
  sum << std::hex << checksum(body) << '\n';
  return body + sum.str();
}

std::optional<LtTable::Rows> LtTable::parse(const std::string& text, std::string& why) const {
  const std::size_t last = text.size() < 2 ? std::string::npos : text.rfind('\n', text.size() - 2);
  std::istringstream sum(last == std::string::npos ? "" : text.substr(last + 1));
  std::uint64_t expected = 0;
  if (!(sum >> std::hex >> expected) || text.back() != '\n' ||
      checksum(text.substr(0, last + 1)) != expected) {
    why = "it is damaged";
    return std::nullopt;
  }
  std::istringstream in(text.substr(0, last + 1));
  std::string form, gpu, library, line;
  std::getline(in, form);
  std::getline(in, gpu);
  std::getline(in, library);
  if (form != kForm || gpu != gpu_ || library != library_) {
    why = "it was made for " + gpu + ", cuBLASLt " + library;
    return std::nullopt;
  }
  Rows rows;
  while (std::getline(in, line)) {
    LtShape shape;
    LtChoice choice;
    if (!read_row(line, shape, choice)) {
      why = "it has a line that is no algorithm: " + line;
      return std::nullopt;
    }
    rows.emplace(shape, choice);
  }
  return rows;
}

LtTable::Rows LtTable::read() const {
  const std::optional<std::string> text = contents(path_);
  if (!text.has_value()) return {};  // the first start
  std::string why;
  std::optional<Rows> rows = parse(*text, why);
  if (rows.has_value()) return *std::move(rows);
  log_("ignoring " + path_ + ": " + why + "; algorithms are measured again");
  return {};
}

// What others wrote meanwhile stays, also where it is about our shapes.
void LtTable::write() const {
  Rows rows;
  if (const auto text = contents(path_); text.has_value()) {
    std::string why;
    if (std::optional<Rows> theirs = parse(*text, why)) rows = *std::move(theirs);
  }
  for (const auto& [shape, choice] : used_) {
    if (!choice.has_value() || choice->microseconds <= 0.0) continue;
    if (unfit_.contains(shape)) rows.erase(shape);
    rows.emplace(shape, *choice);
  }
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), error);
  const std::string fresh = path_ + "." + std::to_string(getpid());
  std::ofstream out(fresh, std::ios::binary);
  out << this->text(rows);
  out.close();
  if (!out.fail()) std::filesystem::rename(fresh, path_, error);
  if (!out.fail() && !error) return;
  std::remove(fresh.c_str());
  log_("cannot write " + path_ + "; algorithms will be measured again at the next start");
}

}  // namespace quire::cuda
