// A real OpenID Connect provider (oidc-provider, certified by the OpenID Foundation) for tests, with its own pages for
// logging in and consenting. Beside it are addresses under /test with which a test changes its people and its keys.
//
// argument: a JSON file {port, keys: [JWK], accounts: {subject: claims}, clients: [metadata], device: bool}
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const setup = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const issuer = `http://127.0.0.1:${setup.port}`;
const asked = { '/.well-known/openid-configuration': 0, '/jwks': 0 };
let { accounts, keys } = setup;
let slowDowns = 0;

function made() {
  const provider = new Provider(issuer, {
    clients: setup.clients,
    jwks: { keys },
    claims: {
      openid: ['sub'], email: ['email'], profile: ['preferred_username', 'name'], groups: ['groups', 'org'],
    },
    scopes: ['openid', 'profile', 'email', 'groups'],
    conformIdTokenClaims: false, // claims of scopes stand in ID tokens, as company providers have it
    features: { deviceFlow: { enabled: setup.device }, devInteractions: { enabled: true } },
    pkce: { required: () => true },
    ttl: { IdToken: 600, AccessToken: 600, Grant: 600, Session: 600, Interaction: 600 },
    cookies: { keys: ['only for tests'] },
    findAccount: (_ctx, sub) => (sub in accounts ? {
      accountId: sub, claims: () => ({ sub, ...accounts[sub] }),
    } : undefined),
  });
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route === 'device_authorization' && ctx.status === 200) ctx.body = { ...ctx.body, interval: 1 };
    if (ctx.oidc?.route === 'token' && ctx.body?.error === 'authorization_pending' && slowDowns > 0) {
      slowDowns -= 1;
      ctx.body = { error: 'slow_down' };
    }
  });
  return provider.callback();
}

let serve = made();

// Whoever started this holds its standard input: it ends with that, however that ends.
process.stdin.on('end', () => process.exit(0)).resume();

async function read(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return JSON.parse(Buffer.concat(pieces).toString('utf8'));
}

async function change(request, response) {
  if (request.url === '/test/accounts') accounts = await read(request);
  else if (request.url === '/test/slow-downs') slowDowns = await read(request);
  else if (request.url === '/test/keys') {
    keys = await read(request);
    serve = made();
  }
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(asked));
}

createServer((request, response) => {
  if (request.url in asked) asked[request.url] += 1;
  if (request.url.startsWith('/test/')) change(request, response);
  else serve(request, response);
}).listen(setup.port, '127.0.0.1');
