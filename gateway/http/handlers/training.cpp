#include "gateway/http/gateway.hpp"
#include "gateway/http/handlers/handlers.hpp"
#include "gateway/http/snapshot_pages.hpp"

namespace neuroshard::http {

response get_training_global(gateway& g, exchange& x) {
  return g.cached(x, page::training_global, render_training_global);
}

response get_training_verify(gateway& g, exchange& x) {
  return g.cached(x, page::training_verify, render_training_verify);
}

} // namespace neuroshard::http
