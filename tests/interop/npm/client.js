// node client.js PROXY URL: reads a page through a SOCKS5 proxy, with the npm package socks-proxy-agent.
const http = require('http');
const { createRequire } = require('module');
const { SocksProxyAgent } = createRequire(process.env.STROMKREIS_PEERS_NPM + '/')('socks-proxy-agent');

const [proxy, url] = process.argv.slice(2);
http.get(url, { agent: new SocksProxyAgent(proxy) }, (answer) => answer.pipe(process.stdout)).on('error', (error) => {
  console.error(error.message);
  process.exit(1);
});
