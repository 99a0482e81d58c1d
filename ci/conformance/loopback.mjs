// Loaded before the suite's own server, which would listen on every interface.
import http from 'node:http'

const listen = http.Server.prototype.listen
http.Server.prototype.listen = function (port) {
  return listen.call(this, Number(port), '127.0.0.1')
}
