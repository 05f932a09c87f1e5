/*
 * The server on a lab's virtual machine, bare-metal server or bare address: says who it is, as `agnhost netexec` does in Pods.
 *
 *     server NAME HTTP_PORT UDP_PORT
 *
 * HTTP: /hostname and / answer NAME, /clientip the client's address and port, /healthz "ok"; all else is 404. UDP: the same words
 * without the slash; "echo TEXT" answers TEXT. One process a connection, which stays open until the client closes it.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *name;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* As Go prints it: 10.0.1.7:4711 or [fd00::7]:4711. */
static void show(const struct sockaddr_in6 *peer, char *text, size_t size)
{
	char ip[INET6_ADDRSTRLEN];
	unsigned port = ntohs(peer->sin6_port);

	if (IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr)) {
		inet_ntop(AF_INET, &peer->sin6_addr.s6_addr[12], ip, sizeof ip);
		snprintf(text, size, "%s:%u", ip, port);
	} else {
		inet_ntop(AF_INET6, &peer->sin6_addr, ip, sizeof ip);
		snprintf(text, size, "[%s]:%u", ip, port);
	}
}

/* Whether there is an answer to a question, and which. */
static int answer(const char *question, const struct sockaddr_in6 *peer, char *text, size_t size)
{
	if (!strcmp(question, "hostname") || !*question)
		snprintf(text, size, "%s", name);
	else if (!strcmp(question, "clientip"))
		show(peer, text, size);
	else if (!strcmp(question, "healthz"))
		snprintf(text, size, "ok");
	else if (!strncmp(question, "echo ", 5))
		snprintf(text, size, "%s", question + 5);
	else
		return 0;
	return 1;
}

static int open_at(int type, int port)
{
	struct sockaddr_in6 at = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int on = 1, off = 0, s = socket(AF_INET6, type | SOCK_CLOEXEC, 0);

	if (s < 0)
		fail("socket");
	setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(s, (struct sockaddr *)&at, sizeof at))
		fail("bind");
	return s;
}

static void reply(int s, const char *path, const struct sockaddr_in6 *peer)
{
	char text[600], all[800];
	int known = answer(path, peer, text, sizeof text);

	if (!known)
		snprintf(text, sizeof text, "404 page not found");
	snprintf(all, sizeof all, "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n\r\n%s",
		 known ? "200 OK" : "404 Not Found", strlen(text), text);
	if (write(s, all, strlen(all)) < 0)
		_exit(0);
}

/* One request after the other: the first line counts, the others are read over. */
static void converse(int s, const struct sockaddr_in6 *peer)
{
	char line[1024], path[600] = "";
	int on = 1, asked = 0;
	FILE *client = fdopen(s, "r");

	if (!client)
		return;
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	while (fgets(line, sizeof line, client)) {
		if (*line == '\r' || *line == '\n') {
			if (asked)
				reply(s, path, peer);
			asked = 0;
		} else if (!asked) {
			asked = 1;
			if (sscanf(line, "GET /%599[^ ?\r\n]", path) != 1)
				*path = 0;
		}
	}
}

static void serve_http(int s)
{
	if (listen(s, 128))
		fail("listen");
	for (;;) {
		struct sockaddr_in6 peer;
		socklen_t size = sizeof peer;
		int client = accept(s, (struct sockaddr *)&peer, &size);

		if (client < 0)
			continue;
		if (fork() == 0) {
			close(s);
			/* Connections end with the server. */
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			converse(client, &peer);
			_exit(0);
		}
		close(client);
	}
}

static void serve_udp(int s)
{
	for (;;) {
		char question[512], text[600];
		struct sockaddr_in6 peer;
		socklen_t size = sizeof peer;
		ssize_t length = recvfrom(s, question, sizeof question - 1, 0, (struct sockaddr *)&peer, &size);

		if (length < 0)
			continue;
		question[length] = 0;
		question[strcspn(question, "\r\n")] = 0;
		if (answer(question, &peer, text, sizeof text))
			sendto(s, text, strlen(text), 0, (struct sockaddr *)&peer, size);
	}
}

int main(int argc, char **argv)
{
	int http, udp;

	if (argc != 4) {
		fprintf(stderr, "usage: server NAME HTTP_PORT UDP_PORT\n");
		return 2;
	}
	name = argv[1];
	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	http = open_at(SOCK_STREAM, atoi(argv[2]));
	udp = open_at(SOCK_DGRAM, atoi(argv[3]));
	if (fork() == 0) {
		close(http);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve_udp(udp);
	}
	close(udp);
	fprintf(stderr, "%s serves\n", name);
	serve_http(http);
}
