// Reads .env files with the package dotenv ("node", from the folder that the second argument names) or
// as node --env-file does ("node-env-file": util.parseEnv is the same parser).
//
// Standard input: a JSON text per line, the content of a file. Standard output: for each of them
// {"values": {name: value}}.
'use strict'

const path = require('path')
const readline = require('readline')

const parse = process.argv[2] === 'node'
  ? require(path.join(path.resolve(process.argv[3]), 'node_modules', 'dotenv')).parse
  : require('util').parseEnv

readline.createInterface({ input: process.stdin, crlfDelay: Infinity }).on('line', (line) => {
  console.log(JSON.stringify({ values: { ...parse(JSON.parse(line)) } }))
})
