#!/usr/bin/env python3
"""How much of a bare Beast server's throughput is left when the whole gateway stands around it?

GET /api/v1/status with a token under 64 keep-alive connections (wrk), limits off, access log on, beside a bare Beast server of the same build with
as many threads, and nginx for orientation, each returning the same body. Rounds are interleaved, since the machine's speed drifts.
Prints a table, and writes JSON with --json FILE. Needs wrk; nginx is left out where it is missing. Run it from the build folder.
"""
import argparse
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOKEN = "a" * 64


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(arguments):
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.strip() == "listening":
            return process
    sys.exit(f"{arguments[0]} did not start")


def start_nginx(folder, port, threads, body_file):
    """nginx in the foreground, as fast as its defaults allow for a small static file."""
    config = os.path.join(folder, "nginx.conf")
    with open(config, "w") as f:
        f.write(f"""
daemon off; worker_processes {threads}; pid {folder}/nginx.pid; error_log /dev/null; user root;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; open_file_cache max=16; sendfile on; tcp_nodelay on;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location = /api/v1/status {{ default_type application/json; add_header X-Request-Id $request_id; alias {body_file}; }}
  }}
}}
""")
    process = subprocess.Popen(["nginx", "-c", config, "-p", folder], stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            import time
            time.sleep(0.05)
    sys.exit("nginx did not start")


def to_ms(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[unit]


def wrk(port, args):
    out = subprocess.run(
        ["wrk", f"-t{args.client_threads}", f"-c{args.connections}", f"-d{args.seconds}s", "--latency",
         "-H", f"Authorization: Bearer {TOKEN}", f"http://127.0.0.1:{port}/api/v1/status"],
        capture_output=True, text=True, check=True).stdout
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    if errors:
        sys.exit(f"{errors.group(1)} responses were no success")
    return {"requests_per_s": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
            "p50_ms": to_ms(re.search(r"\n\s+50%\s+(\S+)", out).group(1)),
            "p99_ms": to_ms(re.search(r"\n\s+99%\s+(\S+)", out).group(1))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="I/O threads of each server (1)")
    parser.add_argument("--client-threads", type=int, default=1, help="threads of wrk (1)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=8, help="of each run (8)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="file for the results")
    args = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is missing: apt-get install wrk")

    with tempfile.TemporaryDirectory() as folder:
        ports = {"gateway": free_port()}
        servers = [start([f"{HERE}/gateway_server", str(ports["gateway"]), str(args.threads), TOKEN, "0",
                          os.path.join(folder, "node.log")])]
        try:
            link = http.client.HTTPConnection("127.0.0.1", ports["gateway"])
            link.request("GET", "/api/v1/status", headers={"Authorization": "Bearer " + TOKEN})
            body = link.getresponse().read()
            link.close()
            body_file = os.path.join(folder, "status.json")
            with open(body_file, "wb") as f:
                f.write(body)
            os.chmod(folder, 0o755)
            ports["bare beast"] = free_port()
            servers.append(start([f"{HERE}/bare_beast_server", str(ports["bare beast"]), str(args.threads), body_file]))
            if shutil.which("nginx"):
                ports["nginx"] = free_port()
                servers.append(start_nginx(folder, ports["nginx"], args.threads, body_file))
            rounds = []
            for _ in range(args.rounds):
                rounds.append({name: wrk(port, args) for name, port in ports.items()})
        finally:
            for server in servers:
                server.send_signal(signal.SIGTERM)
            for server in servers:
                server.wait()

    ratios = [r["gateway"]["requests_per_s"] / r["bare beast"]["requests_per_s"] for r in rounds]
    result = {"bench": "gateway_bench", "threads": args.threads, "connections": args.connections,
              "client_threads": args.client_threads, "seconds": args.seconds, "body_bytes": len(body), "rounds": rounds,
              "ratio_to_bare_beast": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
              "p99_ms_max": max(r["gateway"]["p99_ms"] for r in rounds)}
    print(f"{args.threads} server thread(s), {args.connections} connections, {len(body)} bytes of body, "
          f"{args.rounds} rounds of {args.seconds} s")
    print(f"{'':12}" + "".join(f"{'round ' + str(i + 1):>22}" for i in range(len(rounds))) + f"{'median':>12}")
    for name in ports:
        cells = "".join(f"{r[name]['requests_per_s']:>11.0f}/s {r[name]['p99_ms']:>6.2f} ms" for r in rounds)
        print(f"{name:12}{cells}{statistics.median(r[name]['requests_per_s'] for r in rounds):>10.0f}/s")
    print(f"gateway / bare beast: median {statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f}); "
          f"wanted >= 0.85. p99 of the gateway: {result['p99_ms_max']:.2f} ms; wanted < 10 ms.")
    if args.json:
        with open(args.json, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
