// A reverse proxy as Open OnDemand has one, but nginx: the same server in both styles.
//
//   /node/HOST/PORT/…   the path is kept
//   /rnode/HOST/PORT/…  the path is taken away
//
// node tests/web/proxy.mjs TARGET_PORT     prints both addresses and proxies until it is ended

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";

/** A port that nobody listens on. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** The prefix under which the server on `port` of `host` is reached. */
export const prefix = (style, host, port) => `/${style}/${host}/${port}`;

function configuration(folder, { port, target, host }) {
  const at = (name) => path.join(folder, name);
  // As Apache does it: the host is told in a header of its own, and the server sees its own address.
  const headers = `
      proxy_http_version 1.1;
      proxy_set_header Host $proxy_host;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header Connection "";
      proxy_read_timeout 1h;`;
  return `
daemon off;
worker_processes 1;
pid ${at("pid")};
error_log ${at("error.log")} warn;
events {}
http {
  access_log off;
  client_max_body_size 0;
  client_body_temp_path ${at("body")};
  proxy_temp_path ${at("proxy")};
  fastcgi_temp_path ${at("fastcgi")};
  uwsgi_temp_path ${at("uwsgi")};
  scgi_temp_path ${at("scgi")};
  server {
    listen 127.0.0.1:${port};
    location ${prefix("node", host, target)}/ {
      proxy_pass http://127.0.0.1:${target};${headers}
    }
    location ${prefix("rnode", host, target)}/ {
      proxy_pass http://127.0.0.1:${target}/;${headers}
    }
  }
}
`;
}

/** Begins; `kept` and `taken` are the addresses in both styles. */
export async function startProxy({ target, host = "n17" }) {
  const port = await freePort();
  const folder = mkdtempSync(path.join(tmpdir(), "proxy-"));
  const file = path.join(folder, "nginx.conf");
  writeFileSync(file, configuration(folder, { port, target, host }));
  const nginx = spawn("nginx", ["-c", file, "-e", path.join(folder, "error.log")], { stdio: ["ignore", "inherit", "inherit"] });
  await listening(port, nginx);
  const address = (style) => `http://127.0.0.1:${port}${prefix(style, host, target)}/`;
  return {
    port,
    kept: address("node"),
    taken: address("rnode"),
    async stop() {
      const ended = new Promise((resolve) => nginx.once("exit", resolve));
      nginx.kill("SIGTERM");
      await ended;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function listening(port, child) {
  for (let tries = 0; tries < 100; tries += 1) {
    if (child.exitCode !== null) throw new Error("nginx ended at once");
    const open = await new Promise((resolve) => {
      const socket = net.connect(port, "127.0.0.1", () => resolve(socket.destroy() && true));
      socket.on("error", () => resolve(false));
    });
    if (open) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("nginx does not begin");
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const target = Number(process.argv[2]);
  if (!target) {
    console.error("use: node proxy.mjs TARGET_PORT");
    process.exit(2);
  }
  const proxy = await startProxy({ target });
  console.log(`${proxy.kept}\n${proxy.taken}`);
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => proxy.stop().then(() => process.exit(0)));
}
